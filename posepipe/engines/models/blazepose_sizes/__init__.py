"""BlazePose in its smaller and its larger size: only the card, all code is that of `blazepose`."""
