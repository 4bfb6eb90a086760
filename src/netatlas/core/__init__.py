"""What two or more method families share: training, networks, graphs, statistics, linear algebra, tuning."""
