"""What people look at. Torch-free; rich is imported only where something is drawn."""
