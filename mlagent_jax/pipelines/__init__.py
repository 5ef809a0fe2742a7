"""The space of training scripts that starters, the scripted coder and searches without a model share."""
