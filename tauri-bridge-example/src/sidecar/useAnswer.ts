import { useEffect, useState } from "react";
import { errorText } from "./call";

export interface Answer<T> {
  value: T | null;
  error: string | null;
}

/**
 * The answer of a command that is asked whenever `ask` is another function.
 *
 * An answer that comes late, when another was asked for, is passed over.
 */
export function useAnswer<T>(ask: () => Promise<T>): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T>>({ value: null, error: null });
  useEffect(() => {
    let wanted = true;
    ask().then(
      (value) => {
        if (wanted) setAnswer({ value, error: null });
      },
      (error: unknown) => {
        if (wanted) setAnswer((before) => ({ ...before, error: errorText(error) }));
      },
    );
    return () => {
      wanted = false;
    };
  }, [ask]);
  return answer;
}
