"""The gateway: it knows every workspace, checks who may call whom, forwards the call and keeps it alive."""
