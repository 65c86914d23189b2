"""The command line: the commands, one small module a group."""
