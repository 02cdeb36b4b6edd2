"""Side by side with what people would do without us; run by ``make bench``."""
