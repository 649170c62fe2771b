"""From one view to three dimensions: the simple baseline of Martinez et al. 2017, and a form of it for live studios."""
