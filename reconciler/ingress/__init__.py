"""Who owns a published port: a HAProxy of the stack that holds clients while nothing is live."""
