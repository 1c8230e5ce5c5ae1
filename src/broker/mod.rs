//! One shard's pure half: its partitions, its connections' requests and its copy of the Image.
