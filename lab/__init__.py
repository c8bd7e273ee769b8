"""The container lab: real systemd hosts with SSH and Docker on one machine, for the demo and the tests."""
