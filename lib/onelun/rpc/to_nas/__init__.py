"""The requests to a NAS and their replies, by the rooms of `onelun.nas` that answer them."""
