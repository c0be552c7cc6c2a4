"""Connectors make devices of exports. They do not know each other; `base.Connector` says what each must do."""
