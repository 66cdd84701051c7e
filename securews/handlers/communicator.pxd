# Communicator stays a class of Python (subclasses of it and what they set are the user's); its
# methods are compiled.
