"""Pure types and rules: containers, their states, resources and errors. Imports nothing else of Higgins."""
