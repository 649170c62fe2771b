"""The network of classify.action: what a person does, from the last instants of the skeleton."""
