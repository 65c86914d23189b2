"""Entailor behind the interfaces of other libraries."""
