"""The supervisor: starts engines, replicas and the gateway, keeps them alive, and stops them."""
