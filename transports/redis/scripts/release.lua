-- Store.release. Plan: {groups, delay, counted}, the delay in microseconds. Answer: the places of
-- the stale tokens.

local groups, delay, counted = plan[1], plan[2], plan[3]
local fate = fates()
find(groups)
for _, group in ipairs(groups) do
  fate.touch(group[1])
end
for _, group in ipairs(groups) do
  many('HDEL', group[4], group[6])
  for index, id in ipairs(group[3]) do
    if group[5][index] then
      fate.put_back(group[1], id, group[5][index], delay, counted, false)
    end
  end
end
return cmsgpack.pack(stale_of(groups, #groups))
