"""Backends make volumes. They do not know each other; `base.Backend` says what each must do."""
