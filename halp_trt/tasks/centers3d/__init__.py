"""Objects in three dimensions, found as centres in clouds of points.

The sensor is at the origin: x leads forward, y to the left, z up, in metres. A box is ``[7]``: the x, y and z of its
centre, its length, width and height, and its yaw in radians from x to y.
"""
