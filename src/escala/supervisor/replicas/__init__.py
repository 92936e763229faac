"""The replicas of a running project: what they are made of, where they listen, how many there are."""
