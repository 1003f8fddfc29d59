"""Detection: objects of known classes in boxes.

Boxes are ``[n, 4]``: left, top, right, bottom. Pixels count from 0 and a box ends where its last pixel ends, so that
its width is ``right - left``: PASCAL VOC's corners, which count from 1 and are inside the box, lose one on the left and
on top.
"""
