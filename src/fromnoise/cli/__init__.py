"""The command line: what a person types, turned into Requests and calls of the layers below."""
