"""What runs outside the heavy half: launching, supervising, and telling how runs stand."""
