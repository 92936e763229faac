"""Changes to a running project: applied configurations, rollouts, canaries."""
