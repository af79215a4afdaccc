-- Store.release. Plan: {groups, delay, counted}, the delay in microseconds. Answer: the places of
-- the stale tokens. Those of a queue with a key of a foreign type stay claimed, and an error tells.

local groups, delay, counted = plan[1], plan[2], plan[3]
local fate = fates()
find(groups)
local problem = nil
for _, group in ipairs(groups) do
  group.whole, group.problem = sound(fate.touch, group[1])
  problem = problem or group.problem
end
for _, group in ipairs(groups) do
  if group.whole then
    many('HDEL', group[4], group[6])
    for index, id in ipairs(group[3]) do
      if group[5][index] then
        fate.put_back(group[1], id, group[5][index], delay, counted, false)
      end
    end
  end
end
return problem and redis.error_reply(problem) or cmsgpack.pack(stale_of(groups, #groups))
