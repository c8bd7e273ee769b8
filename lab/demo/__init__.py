"""The demo: a small real training on the lab's minis, and what Loki then knows of it."""
