"""The only room with torch: configuration, data, augmentation, networks, loop and export."""
