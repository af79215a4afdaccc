-- The plan of a step: ARGV[1], a msgpack array.

local plan = cmsgpack.unpack(ARGV[1])
