"""The search for the fastest configuration within an accuracy bound."""
