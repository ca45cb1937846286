"""Who answers for the teacher: running or managed servers, and which request goes to which."""
