"""What is known of each board: a TOML file each, toolchains, firmware, emulators."""
