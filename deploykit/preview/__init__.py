"""An exported file at work on images, videos and cameras: masks, post-processing, backgrounds, pictures of them."""
