"""The outer shell: gateway, HTTP API, page and command line."""
