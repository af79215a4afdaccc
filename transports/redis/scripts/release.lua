-- Store.release. Plan: {tokens, delay, counted}, the delay in microseconds. Answer: the indices of
-- the stale tokens.

local tokens, delay, counted = plan[1], plan[2], plan[3]
local records = find(tokens)
check_books(tokens, records, #tokens)
local touched = {}
for index, token in ipairs(tokens) do
  if records[index] and not touched[token[1]] then
    touched[token[1]] = true
    touch(token[1])
  end
end
close_claims(tokens, records, #tokens)
for index, token in ipairs(tokens) do
  if records[index] then
    put_back(token[1], token[2], records[index], delay, counted, false)
  end
end
return cmsgpack.pack(stale_of(records, #tokens))
