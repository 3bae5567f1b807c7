"""What hosts ask of the control plane, on a listener of its own: TLS 1.3, both sides checked."""
