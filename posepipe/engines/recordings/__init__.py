"""Recordings that `posepipe pull` fetches: one TOML card a source. Nothing recorded is kept in this repository."""
