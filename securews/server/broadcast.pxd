# Nothing here is a class of C: it is compiled for its loop over the receivers.
