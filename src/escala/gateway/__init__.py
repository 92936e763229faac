"""The gateway: what the configuration means, how it is rendered for HAProxy, and the running HAProxy."""
