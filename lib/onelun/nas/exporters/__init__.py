"""Exporters make targets. They do not know each other; `base.Exporter` says what each must do."""
