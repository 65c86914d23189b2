"""What an experiment is made of: typed, documented, frozen settings; YAML and key=value."""
