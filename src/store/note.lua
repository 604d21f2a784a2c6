-- Notes something that may happen once. KEYS: its name. ARGV: how long it is remembered (ms). 1: it is new; 0: it was there.
return redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) and 1 or 0
