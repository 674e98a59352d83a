"""Broken: is no Python."""

def create_app(:
