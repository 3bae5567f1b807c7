"""What Higgins shares of its dealings with OpenStack's other services: sessions, the catalogue, their failures."""
