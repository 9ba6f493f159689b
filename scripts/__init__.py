"""The programs in this package serve those who develop the project; an installation does not contain them."""
