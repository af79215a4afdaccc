-- Mark the keys as ours, in the format of this version. Plan: {format}. Answer: the format found.

local name = P .. 'format'
local found = call('GET', name)
if found then
  return found
end
let_in()
call('SET', name, plan[1])
return plan[1]
