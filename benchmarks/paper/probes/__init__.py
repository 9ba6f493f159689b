"""Measurements inside a network, taken by hooks from outside."""
