"""Remote control of workers: the commands that they obey, and how to give them."""
