"""What SKD and IFVD have in common: a discriminator that is trained with the student."""
