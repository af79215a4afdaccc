-- Store.put of what most puts consist of: messages that are ready at once and for ever, for queues
-- without a limit, and nothing to settle. It has no plan, since unpacking one takes the server as long
-- as the rest: ARGV is the number of versions, name and version of each, and then for each run queue,
-- priority and number of messages, and id and content of each.
-- Answer: {stale, already}: which versions are wrong (then nothing was done), and which messages were
-- there already, both counted from 0.

local stale, already = {}, {}
local position = 2 + 2 * tonumber(ARGV[1])

if position > 2 then
  local names = {}
  for place = 2, position - 1, 2 do
    names[#names + 1] = ARGV[place]
  end
  for index, version in ipairs(many_values('HMGET', P .. 'versions', names)) do
    if (version or '0') ~= ARGV[2 * index + 1] then
      stale[#stale + 1] = index - 1
    end
  end
  if #stale > 0 then
    return {stale, already}
  end
end

-- Read: what is new, and the type of each key that will be written.

local runs, growth, count, known = {}, 0, 0, {}

while position < #ARGV do
  local queue, priority, first = ARGV[position], ARGV[position + 1], position + 3
  position = first + 2 * ARGV[position + 2]
  local ids, contents, seen = {}, {}, known[queue] or {}
  known[queue] = seen
  for place = first, position - 1, 2 do
    ids[#ids + 1] = ARGV[place]
  end
  for index, body in ipairs(many_values('HMGET', key_of('m', queue), ids)) do
    local id = ids[index]
    if body or seen[id] then
      already[#already + 1] = count + index - 1
    else
      seen[id] = true
      contents[#contents + 1] = id
      contents[#contents + 1] = ARGV[first + 2 * index - 1]
    end
  end
  count = count + #ids
  local list = key_of('l' .. priority, queue)
  local filled = call('LLEN', list) > 0
  if not filled then
    call('SCARD', key_of('s', queue))
  end
  bells(queue)
  if #contents > 0 then
    growth = growth + #contents / 2
    runs[#runs + 1] = {queue, priority, list, filled, contents}
  end
end

-- Write; the first command is one that a full server refuses.

local seq = growth > 0 and call('INCRBY', P .. 'seq', growth) - growth

for _, run in ipairs(runs) do
  local queue, priority, list, filled, contents = unpack(run)
  local places = {}
  for index = 1, #contents, 2 do
    seq = seq + 1
    places[#places + 1] = string.format('%.0f:%s', seq, contents[index])
  end
  many('HSET', key_of('m', queue), contents)
  many('RPUSH', list, places)
  if not filled then
    fill(queue, priority)
  end
  ring(queue, #places)
end
return {stale, already}
