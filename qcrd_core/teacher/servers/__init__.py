"""The teacher's servers, running or managed, and the dispatcher that sends requests to them."""
